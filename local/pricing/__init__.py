"""AWS's price list as far as it has prices of MWAA environments; moto has none."""
