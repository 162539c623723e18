"""Solvers: conjugate gradients, fixed points with their implicit gradients, and the solution that every one returns.

solution             what does every solve return, and what is one of its iterates?
solver_settings      how is an equilibrium looked for: goals, limits, callbacks?
fixed_point          how is a fixed point found: Anderson acceleration and its safeguard
refinement           how is a residual kept exact, with most of it in single precision?
implicit             how does a gradient pass through a solution?
conjugate_gradient   how is a Hermitian system solved, with its gradient?
equilibrium          how is the fixed point of a map found of which nothing is known?
torchdeq_solver      how does torchdeq use our solver?
batched              norms and selections by sample
in_threads           how are independent problems worked on side by side?
"""
