# Reference values for robust and clustered covariances.
#
#   Rscript tests/references/covariance.R
#
# after glm.R and vector.R, whose data sets it reads.  Writes covariance.json.
# Needs sandwich, clubSandwich, survey and MASS.
#
# Each model is fitted by glm() until its deviance moves no more; its score at the
# solution is then below 1e-8 standard deviations, which moves a covariance by as much.  HC0 to HC3 are vcovHC(); clusters
# are vcovCL(cadjust, type): "none" is cadjust = FALSE, "groups" the default with
# type HC0, "full" with type HC1.  One way, "none" and "full" are checked here
# against clubSandwich's CR0 and CR1S.  Weights are variance weights, but for kind
# "survey", where they are probability weights of svyglm() with the clusters as
# sampling units.  kind "polr": ordered classes, "HC0" alone; bread.polr() takes the
# Hessian from finite differences, which leaves about six digits.

suppressPackageStartupMessages({
  library(sandwich); library(clubSandwich); library(survey); library(MASS)
})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

matrix_json <- function(x) rows_json(unname(as.matrix(x)))
near <- function(a, b, tol = 1e-8) stopifnot(max(abs(a - b)) <= tol * max(abs(b)))

NEAR <- 1e-8
STEADY <- 1e-300                           # a change of deviance that is none
CASES <- list()

scaled_score <- function(fit) {
  s <- estfun(fit)
  max(abs(colSums(s)) / sqrt(colSums(s^2)))
}

clustered <- function(fit, frame, ways) {
  cluster <- frame[ways]
  list(none = matrix_json(vcovCL(fit, cluster, type = "HC0", cadjust = FALSE)),
       groups = matrix_json(vcovCL(fit, cluster, type = "HC0")),
       full = matrix_json(vcovCL(fit, cluster, type = "HC1")))
}

case <- function(name, data, formula, family, link, fam, weights = NULL, offset = NULL, clusters = list()) {
  frame <- stored(data)
  model <- as.formula(as_r(formula), env = globalenv())
  frame$.weights <- if (is.null(weights)) 1 else frame[[weights]]
  frame$.offset <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)
  args <- list(model, family = fam, data = frame, control = glm.control(STEADY, MAXIT))
  if (!is.null(weights)) args$weights <- as.name(".weights")
  if (!is.null(offset)) args$offset <- as.name(".offset")
  fit <- suppressWarnings(do.call(glm, args))
  score <- scaled_score(fit)
  if (score > NEAR) return(message("DROPPED ", name, ": score ", score))
  for (ways in Filter(function(x) length(x) == 1, clusters)) {
    # clubSandwich sets up its own working model, without prior weights alone
    if (is.null(weights)) {
      near(vcovCL(fit, frame[ways], type = "HC0", cadjust = FALSE), vcovCR(fit, frame[[ways]], type = "CR0"))
      near(vcovCL(fit, frame[ways], type = "HC1"), vcovCR(fit, frame[[ways]], type = "CR1S"))
    }
  }
  kinds <- lapply(c(HC0 = "HC0", HC1 = "HC1", HC2 = "HC2", HC3 = "HC3"), function(type) matrix_json(vcovHC(fit, type)))
  CASES[[length(CASES) + 1]] <<- list(
    name = name, kind = "glm", data = data, formula = formula, family = family, link = link, weights = weights,
    offset = offset, names = array_json(names(coef(fit))), kinds = kinds,
    clusters = setNames(lapply(clusters, function(ways) clustered(fit, frame, ways)),
                        vapply(clusters, paste, "", collapse = " ")), score = score)
}

survey_case <- function(name, data, formula, family, link, fam, weights, unit) {
  frame <- stored(data)
  design <- svydesign(ids = as.formula(paste("~", unit)), weights = as.formula(paste("~", weights)), data = frame)
  fit <- svyglm(as.formula(as_r(formula)), design, family = fam, control = glm.control(STEADY, MAXIT))
  CASES[[length(CASES) + 1]] <<- list(
    name = name, kind = "survey", data = data, formula = formula, family = family, link = link, weights = weights,
    names = array_json(names(coef(fit))),
    clusters = setNames(list(list(groups = matrix_json(vcov(fit)))), unit),
    # of the weights rescaled to mean 1, as svyglm fits them
    deviance = deviance(fit), null_deviance = fit$null.deviance,
    pearson = sum(fit$prior.weights * (fit$y - fitted(fit))^2 / fit$family$variance(fitted(fit))))
}

polr_case <- function(name, data, formula, method, link, ways) {
  frame <- stored(data)
  response <- sub(" *~.*", "", formula)
  frame[[response]] <- factor(frame[[response]], ordered = TRUE)
  fit <- polr(as.formula(formula), frame, method = method, Hess = TRUE, control = list(reltol = 1e-15, maxit = 10000))
  found <- list(vcovCL(fit, frame[ways], type = "HC0", cadjust = FALSE))
  CASES[[length(CASES) + 1]] <<- list(
    name = name, kind = "polr", data = data, formula = formula, family = "ordinal", link = link,
    levels = array_json(levels(frame[[response]])), names = array_json(rownames(found[[1]])),
    kinds = list(HC0 = matrix_json(sandwich(fit))),
    clusters = setNames(list(list(none = matrix_json(found[[1]]))), paste(ways, collapse = " ")))
}

case("epil_poisson", "epil", "y ~ trt + base + age", "poisson", "log", poisson(),
     clusters = list("subject", c("subject", "period")))
case("epil_quasipoisson", "epil", "y ~ trt*lbase + lage", "quasipoisson", "log", quasipoisson(), clusters = list("subject"))
case("epil_poisson_sqrt", "epil", "y ~ trt + lbase", "poisson", "sqrt", poisson("sqrt"), clusters = list("subject"))
case("CO2_gaussian", "CO2", "uptake ~ Type + log(conc)", "gaussian", "identity", gaussian(),
     clusters = list("Plant", c("Plant", "conc"), c("Plant", "conc", "Treatment")))
case("CO2_gamma", "CO2", "uptake ~ Type*Treatment + log(conc)", "gamma", "log", Gamma("log"),
     clusters = list("Plant", c("Plant", "conc")))
case("CO2_gamma_inverse", "CO2", "uptake ~ Type + I(1/conc)", "gamma", "inverse", Gamma(), clusters = list("Plant"))
case("CO2_inverse_gaussian", "CO2", "uptake ~ Type + log(conc)", "inverse_gaussian", "log", inverse.gaussian("log"),
     clusters = list("Plant"))
case("CO2_gaussian_weights", "CO2", "uptake ~ Type + log(conc)", "gaussian", "identity", gaussian(), weights = "conc",
     clusters = list("Plant", c("Plant", "Treatment")))
case("CO2_gamma_weights", "CO2", "uptake ~ Treatment + log(conc)", "gamma", "log", Gamma("log"), weights = "conc",
     clusters = list("Plant"))
case("hills_weights", "hills", "time ~ dist + climb", "gaussian", "identity", gaussian(), weights = "precision")
case("Insurance_offset", "Insurance", "Claims ~ Age + C(District)", "poisson", "log", poisson(), offset = "log(Holders)",
     clusters = list("Group"))
case("ships_offset", "ships", "incidents ~ type", "poisson", "log", poisson(), offset = "log(service)",
     clusters = list("year", c("year", "period")))
case("birthwt_logit", "birthwt", "low ~ age + lwt + C(race)", "binomial", "logit", binomial(),
     clusters = list("age", c("ftv", "ptl")))
case("birthwt_probit", "birthwt", "low ~ smoke + lwt", "binomial", "probit", binomial("probit"), clusters = list("age"))
case("birthwt_cloglog", "birthwt", "low ~ smoke + lwt", "binomial", "cloglog", binomial("cloglog"), clusters = list("age"))
case("budworm_counts", "budworm", "cbind(dead, alive) ~ sex + ldose", "binomial", "logit", binomial(),
     clusters = list("ldose"))
case("quine_poisson", "quine", "Days ~ Eth*Sex + Age", "poisson", "log", poisson(), clusters = list(c("Lrn", "Age")))

survey_case("CO2_svyglm", "CO2", "uptake ~ Type + log(conc)", "gaussian", "identity", gaussian(), "conc", "Plant")
survey_case("epil_svyglm", "epil", "y ~ trt + base", "poisson", "log", quasipoisson(), "age", "subject")

polr_case("quine_polr", "quine", "Age ~ log(Days + 1) + Sex", "logistic", "logit", "Days")
polr_case("quine_polr_probit", "quine", "Age ~ log(Days + 1) + Sex + Eth", "probit", "probit", "Days")

versions <- vapply(c("sandwich", "clubSandwich", "survey", "MASS"), function(p) as.character(packageVersion(p)), "")
output <- file(file.path(here, "covariance.json"), "wb")
writeLines(c(paste0("{\"R\": ", quoted(as.character(getRversion())), ", \"packages\": ", json(as.list(versions)), ","),
             "\"cases\": [", paste(vapply(CASES, record, ""), collapse = ",\n"), "]}"), output)
close(output)
cat(length(CASES), "cases\n")
