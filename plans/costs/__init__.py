"""What each way to run a role costs: seconds from `plans/times`, bytes from `plans/bytes`.

`work.py` translates a job, a layout and its settings into what those models read; `learning.py`,
`generating.py`, `switching.py` and `host.py` give the seconds of the kinds of phases with their
parts; `resident.py` the bytes of a role on a rank; `tables.py` all choices of a role, as a
search compares them.
"""
