namespace annulus {}
