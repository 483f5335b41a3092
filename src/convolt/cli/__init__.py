"""What stands between the command line and all other rooms: train, rerun. Uses all of them."""
