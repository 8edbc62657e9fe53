"""What tests share: tiny models and data, runs of the scripts, stand-ins of hubs and hosts, references."""
