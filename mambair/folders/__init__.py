"""What `Restorer` and `mambair restore` are made of: kinds of images, tiles, memory, files, claims."""
