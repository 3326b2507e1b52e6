"""From a configuration of verl to a job file, and what of it has no equivalent here.

`config.py` reads a configuration and follows its references, `verl.py` says what each key
becomes, `reasons.py` why the others become nothing.
"""
