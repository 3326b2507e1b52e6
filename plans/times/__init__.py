"""Op-level times: what a training step, a prefill, a decode and an RL step take on a machine.

`device.py` says what a device can do by its datasheet, `rates.py` which share of it a software
stack reaches (constants with provenance in `calibration/`), `shape.py` a model's matrices.
"""
