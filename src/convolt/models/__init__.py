"""Networks: plain modules that know neither a dataset nor a config; conf/model lists them."""
