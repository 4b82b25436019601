"""What the library costs: ratios to the bare clients and to rivals, instruction counts, and simulations."""
