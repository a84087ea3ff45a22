# Variance inflation factors and Belsley's diagnostics of fitted models.
#
#   Rscript tests/references/collinearity.R        (after glm.R)
#
# writes collinearity.json: vif() of car with the terms' degrees of freedom, and
# condition indices and variance-decomposition proportions from the singular
# values of sqrt(W) X itself, columns scaled to unit length and not centred.

suppressPackageStartupMessages({library(car); library(MASS)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

CONTROL <- glm.control(epsilon = EPSILON, maxit = MAXIT)

belsley <- function(x) {                   # Belsley, Kuh and Welsch (1980)
  found <- svd(scale(x, center = FALSE, scale = sqrt(colSums(x^2))))
  parts <- t(found$v^2) / found$d^2
  list(indices = found$d[1] / found$d, proportions = sweep(parts, 2, colSums(parts), "/"))
}

case <- function(name, data, formula, family, link, python = formula) {
  frame <- stored(data)
  model <- glm(as.formula(formula), family = do.call(family, list(link = link)), data = frame, control = CONTROL)
  factors <- vif(model)
  if (!is.matrix(factors)) factors <- cbind(factors, 1, sqrt(factors))
  x <- model.matrix(model)
  found <- belsley(sqrt(weights(model, "working")) * x)
  list(name = name, data = paste0(data, ".csv"), formula = python, family = family, link = link,
       terms = array_json(rownames(factors)), gvif = array_json(factors[, 1]), df = array_json(factors[, 2]),
       gvif_root = array_json(factors[, 3]), columns = array_json(colnames(x)),
       indices = array_json(found$indices), proportions = rows_json(found$proportions))
}

cases <- list(
  case("longley", "longley", "Employed ~ GNP_deflator + GNP + Unemployed + Armed_Forces + Population + Year",
       "gaussian", "identity"),
  case("birthwt", "birthwt", "low ~ age + lwt + factor(race) + smoke + ptl + ht + ui", "binomial", "logit",
       "low ~ age + lwt + C(race) + smoke + ptl + ht + ui"),
  case("warpbreaks", "warpbreaks", "breaks ~ wool + tension", "poisson", "log"),
  case("mtcars_gamma", "mtcars", "mpg ~ disp + hp + wt + factor(cyl) + factor(gear)", "Gamma", "log",
       "mpg ~ disp + hp + wt + C(cyl) + C(gear)"),
  case("infert", "infert", "case ~ education + age + parity + induced + spontaneous", "binomial", "probit"),
  case("uncentred", "uncentred", "n ~ x + z", "poisson", "log"))

versions <- list(R = paste(R.version$major, R.version$minor, sep = "."), car = as.character(packageVersion("car")))
output <- file(file.path(here, "collinearity.json"), "wb")
writeLines(paste0("{\n\"versions\": ", json(versions), ",\n\"settings\": ", quoted(SETTINGS), ",\n\"cases\": [\n",
                  paste(vapply(cases, record, ""), collapse = ",\n"), "]\n}"), output)
close(output)
