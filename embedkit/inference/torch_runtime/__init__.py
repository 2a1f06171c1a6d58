"""Computing with torch, on a CPU or a GPU."""
