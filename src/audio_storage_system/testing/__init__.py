"""What tests of the system, and of extensions to it, are made of: contracts, small real models, local servers."""
