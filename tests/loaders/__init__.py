"""Programs that load models as users do, run on a machine without a network."""
