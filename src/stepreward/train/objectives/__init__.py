"""What training minimises: functions of named outputs of a model and named columns of its data.

Axes: B trajectories, S steps, K outputs of a head, P pairs. An entry without a target (NaN), or outside `mask`, is not
supervised: it adds nothing to the loss, and its output gets a gradient of exactly 0.
"""
