"""What scripts/fetch_real_small.py and scripts/make_real_small_data.py are made of."""
