"""What is true before anything runs: processors, memory, GPUs, the model file, its memory plan."""
