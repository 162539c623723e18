"""Convergence: what a certificate promises, tried on every packaged model and every family of operators.

To run it on a model of your own, a packaged name, a safetensors file or published MOL weights:

    python -m pytest tests/convergence --model PATH

It is then tried on the families that have the spatial axes of its network (2D: Cartesian, non-Cartesian and compressed
sensing; 3D: Cartesian and 2D+time), without and with acceleration. Without `--model` every packaged certified model
is, and a random certified network where none has the axes. A failure is a violated promise, or a solver that did not
converge: for a model whose certificate says "estimated" violations are no fault of the solver. The end of the output
says how much of each robustness bound random and worst-case perturbations reached; `molrecon certify` reports the same
on a scan.

    python -m pytest tests/convergence/test_properties.py --cases 50000

tries random networks on random operators; a case is one pair of images, or one reconstruction, held against its
certificate. The default is 10,000.
"""
