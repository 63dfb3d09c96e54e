"""The one script that runs a model file on this host, an emulated core and a phone."""
