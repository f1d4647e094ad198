"""Votebook's library: notebooks tell, `lib` works.

Imports point downward only:

    top      __main__  pipeline  report
    view     accounts  findings  charts  tables
    outside  service  ledger  reconcile  collect  submit  dispatch
    pure     corpus/  prompts  tokens  lengths  estimate  wanted  shards  pacing  answers
             votes  weights  consensus  agreement  entities  gold  corrections  verdicts  advice
    ground   errors  clock  yamls  parts  models/  fields  policies  folder  study  runs
    apart    local_api/   imports models and errors alone; reached over HTTP alone
"""
