"""The models of this package as a PyTorch user would write them: the other side of `minirnn bench train`.

Each module has a `Twin`, an `nn.Module` made from the same configuration, whose parameters have the same names and shapes, with

    inputs = twin.prepare(batch)                 the batch that minirnn's `loss` takes, as tensors: what a data loader's workers would do
    twin.loss(inputs, step, noise)               the same loss; noise (S, Z) or (N, Z) as minirnn's model is given it, None: drawn here

Whole sequences go through `nn.LSTM` in one call, losses and attention are PyTorch's fused ones, and Python loops over steps remain only
where each step waits for the one before. Of two ways to write a part the faster one (on the CPU) stands here.
"""
