"""Every HTML page: one template a page, with shared macros and style; one file without script or foreign address."""
