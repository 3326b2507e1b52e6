"""From a plan to a batch script on SLURM.

Reading order: directives, script.
"""
