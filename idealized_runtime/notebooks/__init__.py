"""Run notebooks: papermill that refuses unknown parameters, and every run that ``runs.yml`` lists."""
