"""Faults on purpose: what goes wrong with the real Batch API, switched on by name.

`table` names every fault; `switches` decides when one strikes; the others are what they do: to a
request (`door`, `refusals`), to what is shown (`views`, `lists`, `contents`), to the life of a
batch (`stages`) and to the lines of its results (`lines`). All are off until somebody asks.
"""
