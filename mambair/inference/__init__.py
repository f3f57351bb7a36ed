"""One image through one network: conversion, tiles, alpha, memory."""
