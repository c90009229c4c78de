// Infinity and NaN are in cuda.hpp, which comes before.
#pragma once
