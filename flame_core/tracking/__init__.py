"""What happened, and which model is it: training runs, models and their lineage in MLflow.

    journal      events of a training, written to a local file first, so that an outage loses nothing
    provenance   what a run is described by: tags, params, datasets
    run          what the stages call
    store        where MLflow keeps its records, and their first set-up
    address      addresses of stores: any path, and no password
    relocation   a project that was copied or moved takes its store along
    pages        where MLflow's pages are, and whether a server shows them
    delivery     a journal's events to MLflow, each once, in order
    obstacles    what keeps events from arriving
    shipper      the process beside a training that delivers while it runs
    registry     model versions, and the aliases challenger and champion
    gate         whether a challenger may become champion
    lineage      the chain from a model back to its sources, every link verified
    reproduce    the same model again, from its run

Only `delivery`, `registry`, `lineage` and `reproduce` import MLflow, inside their functions.
"""
