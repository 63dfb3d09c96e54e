"""The simulated Pixel: a sandbox of aarch64 software, the phones it plays, and the counter of what their cores run."""
