"""The parts of the GPU benchmark. Each has a function `run(task)`."""
