# Reference values for contrasts of factors and for scaled columns.
#
#   Rscript tests/references/contrasts.R
#
# after glm.R, whose data sets it reads.  Writes contrasts.json: R's glm() with
# contr.sum, contr.helmert, contr.poly and MASS's contr.sdif (Diff), and with
# scale(); and the contrast matrices themselves, up to 20 levels.  `aliased` cases
# have an empty cell.

suppressPackageStartupMessages(library(MASS))
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

center <- function(x) scale(x, scale = FALSE)
# a standard deviation with the number of rows as divisor
standardize <- function(x) (x - mean(x)) / sqrt(mean((x - mean(x))^2))
contr.scores <- function(n) contr.poly(n, scores = c(1, 2, 5))

R_NAMES <- c(Sum = "contr.sum", Helmert = "contr.helmert", Poly = "contr.poly", Diff = "contr.sdif")

# C(a, Sum) as C(factor(a), contr.sum); the options of R's scale are those of ours.
as_r <- function(formula) {
  formula <- gsub("Poly(scores=[1, 2, 5])", "contr.scores", formula, fixed = TRUE)
  for (name in names(R_NAMES)) formula <- gsub(paste0(", ", name, ")"), paste0(", ", R_NAMES[[name]], ")"), formula, fixed = TRUE)
  formula <- gsub("\\bC\\((\\w+), ", "C(factor(\\1), ", formula)
  gsub("\\bC\\((\\w+)\\)", "factor(\\1)", gsub("=False", "=FALSE", formula, fixed = TRUE))
}

poisson_case <- function(name, data, formula, ...)
  reference(name, data, formula, "poisson", "log", poisson(), TRUE, ...)
gaussian_case <- function(name, data, formula, ...)
  reference(name, data, formula, "gaussian", "identity", gaussian(), FALSE, ...)
binomial_case <- function(name, data, formula, ...)
  reference(name, data, formula, "binomial", "logit", binomial(), TRUE, bounded = TRUE, ...)

for (kind in names(R_NAMES)) {
  poisson_case(paste0("InsectSprays_", kind), "InsectSprays", paste0("count ~ C(spray, ", kind, ")"))
  poisson_case(paste0("warpbreaks_", kind), "warpbreaks", paste0("breaks ~ C(wool, ", kind, ")*C(tension, ", kind, ")"))
  gaussian_case(paste0("iris_", kind), "iris", paste0("Sepal_Length ~ C(Species, ", kind, ")*Petal_Length"))
  # without its margin the factor keeps all its levels
  gaussian_case(paste0("iris_margin_", kind), "iris", paste0("Sepal_Length ~ Petal_Width + C(Species, ", kind, "):Petal_Length"))
  gaussian_case(paste0("ToothGrowth_", kind), "ToothGrowth", paste0("len ~ supp + supp:C(dose, ", kind, ")"))
  poisson_case(paste0("quine_aliased_", kind), "quine", paste0("Days ~ Eth + Sex + C(Age, ", kind, ")*Lrn"))
}
binomial_case("birthwt_Sum", "birthwt", "low ~ scale(age) + scale(lwt) + C(race, Sum)*smoke + ht")
binomial_case("infert_mixed", "infert", "case ~ C(education, Helmert) + C(spontaneous, Poly) + C(induced, Diff) + age")
poisson_case("epil_scaled", "epil", "y ~ scale(lbase)*trt + center(lage) + V4")
gaussian_case("ToothGrowth_scores", "ToothGrowth", "len ~ supp*C(dose, Poly(scores=[1, 2, 5]))")
gaussian_case("mtcars_scaled", "mtcars", "mpg ~ scale(wt)*standardize(hp) + C(cyl, Sum):center(wt)")
gaussian_case("mtcars_root", "mtcars", "mpg ~ scale(wt, center=False) + scale(hp, scale=False)")

matrices <- list()
for (n in c(2, 3, 4, 7, 20)) for (kind in names(R_NAMES))
  matrices <- c(matrices, list(list(kind = kind, levels = n, matrix = rows_json(unname(get(R_NAMES[[kind]])(n))))))
matrices <- c(matrices, list(list(kind = "Poly", levels = 5, scores = array_json(c(1, 2, 4, 8, 9)),
                                  matrix = rows_json(unname(contr.poly(5, scores = c(1, 2, 4, 8, 9)))))))

write_cases("contrasts.json", "MASS", SETTINGS, c(unname(CASES), matrices))
