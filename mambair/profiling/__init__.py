"""What a network costs: parameters, multiplications, time and memory; each figure with how it was found."""
