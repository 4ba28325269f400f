"""What `diptych probes` keeps on disk and draws."""
