"""Access map and route map: back ends, key sequences, pattern lists."""
