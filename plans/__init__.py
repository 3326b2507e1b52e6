"""The plan: pure values and functions, from a job file to a proven execution plan.

Reading order: units, source, spec, model, hardware, dataflow, layout, placement,
memory, cost, shards, reshard, timeline, search, plan, report, record, platform.
"""
