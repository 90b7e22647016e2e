"""Training runs, models and their lineage in MLflow.

    journal      events of a training, written to a local file first, so that an outage loses nothing
    provenance   the description of a run: tags, params, datasets
    run          the calls for the stages
    metric_names names of metrics in MLflow
    store        where MLflow keeps its records, and their first set-up
    address      addresses of stores: any path, no passwords
    relocation   a copied or moved project takes its store along
    prepared_store  the store of `mlflow/server.sh`, made or upgraded whole
    pages        where MLflow's pages are, and whether a server shows them
    delivery     sends a journal's events to MLflow, each once, in order
    obstacles    what keeps events from arriving
    shipper      the process that delivers events while a training runs
    registry     model versions, and the aliases challenger and champion
    belonging    whether a version is this project's or another's on the same server
    gate         whether a challenger may become champion
    lineage      the chain from a model back to its sources, every link verified
    reproduce    trains the same model again, from its run

Only `delivery`, `registry`, `lineage` and `reproduce` import MLflow, inside their functions.
"""
