"""A codebook of patch tokens that is trained with a captioner, as in TL;DR (vector quantisation)."""
