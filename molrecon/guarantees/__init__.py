"""Guarantees: certificates put to the test, worst-case perturbations, and reports of what was found.

certify              does a scan contradict a model's certificate?
certify_report       what was found, as sentences, lines and JSON
checks               does a model keep on a scan what its certificate promises?
estimates            what are local Lipschitz constant and monotonicity around an image?
perturbation         how far does a change of data or coil maps move the equilibrium?
attack               how is the worst perturbation of the data sought?
robustness           what do random and worst perturbations do to the images of several methods?
method_on_scan       what does one of them do on one scan?
robustness_trials    what does such an evaluation return?
robustness_report    the evaluation as table, JSON and figure
defaults             default levels and draws
"""
