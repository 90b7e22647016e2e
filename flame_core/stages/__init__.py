"""One module a stage of `dvc.yaml`: what goes in, what is computed (by the other packages), what comes out."""
