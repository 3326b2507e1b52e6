"""Memory by module: what each rank holds, of which kind, at each moment of a phase.

`execution.py` says how a model is run, `stage.py` which modules a pipeline stage holds,
`layer.py` what a layer keeps for its backward pass, `schedule.py` how many micro-batches are
in flight; `training.py` and `serving.py` put the lines together, `account.py` reads them.
"""
