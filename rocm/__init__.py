"""AMD GPUs: what they need of the environment, the container and the device files."""
