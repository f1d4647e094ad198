"""Votebook's library: notebooks tell, `lib` works.

Imports point downward only:

    top      __main__  commands  exchange  pipeline  kernels  report  selftest
    view     accounts  aggregate  counts  findings  savings  charts  diagrams  tables
    outside  service  refusals  keys  ledger  versions  diary  reconcile  batches  collect
             standing  queues  disks  sent  planning  audit  said  asking  push  submit
             dispatch  repairs  check  schedule/  notify
    pure     corpus/  prompts  tokens  lengths  estimate  wanted  brake  shards  pacing
             outlook  answers  results  dialect  votes  totals  weights  tally  averages
             consensus  counting/  agreement/  inference/  entities/  gold/  corrections
             review/  advice  verdicts/  exports/  alarm  decisive/  ranges  scratch
    ground   errors  clock  yamls  parts  models/  fields  policies  policy_files  folder
             study  runs  services  spreadsheets  words
    apart    local_api/   imports models and errors alone; reached over HTTP alone
"""
