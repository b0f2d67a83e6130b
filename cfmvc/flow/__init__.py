"""Flow matching without parameters: paths, couplings, solvers, divergences."""
