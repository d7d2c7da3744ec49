"""The engine: the plain code of layers, losses and rules is traced once, planned, and played in every step.

    trace    the code runs on stand-ins that write down what is computed: a list of operations, data
    plan     what is needed, in which order, where it lies; where gradients land
    play     the list as calls on arrays that stay the same from step to step
    step     a batch: shards, threads, and the rule

It knows layers, losses and optimizers by their contracts alone.
"""
