"""How votes scale with the number of calls (Chen et al. 2024, arXiv:2403.02419). Pure."""
