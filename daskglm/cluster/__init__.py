"""Where data come from and where work is done: the only room that may know Dask, and one that knows no statistics."""
