"""One module per stage of `dvc.yaml`: its inputs, its computation (in the other packages), its outs."""
