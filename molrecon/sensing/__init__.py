"""Compressed sensing of photographs: unrolled stages with GDM or GIN, their hosts, and their training."""
