"""What all GPU kernels share: sources, launches, plans, and what they rest on."""
