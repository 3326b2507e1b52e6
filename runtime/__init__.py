"""What runs on the ranks.

Reading order: rank, environment, control, control_mpi, groups, loop, batch, algorithms,
data, rewards, reshard, checkpoint, experience, metrics, engines.
"""
