"""Any DVC project as Dagster assets, as dagster-dbt does for dbt. Imports nothing of FLAME."""
