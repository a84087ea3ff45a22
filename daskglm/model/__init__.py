"""What is believed of the data: distributions, links, likelihoods, weights. No data, no Dask."""
